"""Classifies a tool from its definition: category, risk class, severity, and the evidence for each."""
