"""What goes to MLflow, and how: the only package that speaks to it, and only of what lies in the run directory."""
