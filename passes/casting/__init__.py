"""What cast needs beside it."""
