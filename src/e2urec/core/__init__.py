"""What every other room uses: errors, array types, random streams, processes, memory."""
