"""Tables and plots of a search: HTML for people, JSON for programs, Markdown, and an Optuna study."""
