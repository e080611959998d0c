"""OpenAI's API in front of the fleet: agents are addressed as models."""
