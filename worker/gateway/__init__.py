"""The fleet over HTTP: tasks, sessions, the APIs of OpenAI, Anthropic and AI Studio, and the pages."""
