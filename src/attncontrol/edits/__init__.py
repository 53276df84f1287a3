"""Changes of attention itself. One file for each: a function of one attention call, exact around an
untouched kernel."""
