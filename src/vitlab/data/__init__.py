"""Path → bytes → image → batch. Knows no model."""
