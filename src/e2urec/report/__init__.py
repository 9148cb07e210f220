"""What people see: terminal tables and a page."""
