"""What people read: the report page, the pages of the findings, figures and the tables behind them."""
