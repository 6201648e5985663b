"""The second door's operations: OpenAI's shapes over the same models and jobs.

Files lie in a bucket of their own, so that boto3 sees them too. A job that either door began is listed by both. What
OpenAI offers and Outcrop does not is refused in words.
"""
