"""What the components do in their pods, in plain paths and texts: no step knows of kfp."""
