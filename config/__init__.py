"""Every flag of every command, declared once: type, range, default, help; and the way there from words and files."""
