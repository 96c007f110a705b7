"""What the papers print: titles, tables, rows and cells, exact decimals, and expressions over the cells."""
