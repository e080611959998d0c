"""Tools: declaring, calling, and the real servers behind them."""
