"""What the APIs of OpenAI and Anthropic have in common: from a request to a task, from a task's chunks
to an answer."""
