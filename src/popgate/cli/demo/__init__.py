"""`popgate demo`: POP before SMTP told live, against servers that it starts."""
