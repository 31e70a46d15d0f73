"""What a person types: one file a verb, no logic. Nothing heavy is imported before a verb runs."""
