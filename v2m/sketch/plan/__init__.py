"""Form, tempo and beat grid, planned so that beats fall on cuts."""
