"""The paper as published, transcribed apart from the code."""
