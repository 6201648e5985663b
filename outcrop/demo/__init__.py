"""The life cycle on a private server: data, training, deployment, questions, comparison.

In: nothing. Out: a table in the terminal and one HTML page. Everything goes through boto3, as a user's script would.
"""
