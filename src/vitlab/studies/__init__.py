"""The paper as data: recipes, tables and figures, each one command."""
