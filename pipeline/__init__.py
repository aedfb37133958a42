"""What is done to a study: which stacks are read, what is looked for, and the Report that says so."""
