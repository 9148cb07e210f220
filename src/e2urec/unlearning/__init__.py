"""What a method is made of: losses, teachers, a student."""
