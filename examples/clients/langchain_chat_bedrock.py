"""LangChain's InvokeModel model, which goes by the provider in the model id: an alias gives it one that it knows."""

import json

from langchain_aws import ChatBedrock

QUESTION = "My vacuum is broken."
model = ChatBedrock(model="anthropic.claude-3-haiku-20240307-v1:0", model_kwargs={"temperature": 0})
streamed = [chunk.text for chunk in model.stream(QUESTION)]
print(json.dumps({"whole": model.invoke(QUESTION).text, "streamed": streamed}))
