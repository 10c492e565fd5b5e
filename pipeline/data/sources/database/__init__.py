"""Images and boxes from a database, by a query."""
