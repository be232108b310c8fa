"""TCP: RFC 9293 and what came after it."""
