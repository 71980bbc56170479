"""What people look at: charts, Markdown tables and HTML pages."""
