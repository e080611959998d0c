"""What may be spent: budgets of the fleet, and ark's daily window of one agent."""
