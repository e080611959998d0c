"""Sessions: conversations with an agent that outlive connections, gateways and workers."""
