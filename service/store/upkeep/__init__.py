"""What runs beside requests and looks at the whole store."""
