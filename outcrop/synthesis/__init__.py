"""Documents, prompts and logs -> examples: questions and answers, a teacher's answers, with where each came from.

In: text, conversations, logged calls, and a teacher who answers. Out: rows of training data, and for each what it was made from;
for what was not taken, why. The room knows no jobs.
"""

from outcrop.synthesis.documents import ENDINGS, Document, Passage, passages_of, read_documents
from outcrop.synthesis.exchanges import Exchange, exchange_of, same_model
from outcrop.synthesis.pairs import Pair, Templates, fault_of, read_pairs
from outcrop.synthesis.prompts import MADE, Prompt, Rejected, examples_of, read_exchanges, read_prompts, with_examples
from outcrop.synthesis.teachers import BedrockTeacher, CatalogueTeacher, OpenAITeacher, Said, Teacher, remote_teacher

__all__ = [
    "ENDINGS", "MADE", "BedrockTeacher", "CatalogueTeacher", "Document", "Exchange", "OpenAITeacher", "Pair", "Passage", "Prompt", "Rejected",
    "Said", "Teacher", "Templates", "examples_of", "exchange_of", "fault_of", "passages_of", "read_documents", "read_exchanges", "read_pairs",
    "read_prompts", "remote_teacher", "same_model", "with_examples",
]  # fmt: skip
