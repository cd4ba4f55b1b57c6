"""`moa chat`: a conversation held in a terminal."""
