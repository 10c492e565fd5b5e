"""What makes a data set sound: a rule is a small pure function, and what it finds is a record."""
