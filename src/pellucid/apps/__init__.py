"""The programs that people start: takes arguments, gives calls of public functions, knows nothing that a script could not do."""
