"""Classifies tools by their definitions: category, risk class, severity, evidence."""
