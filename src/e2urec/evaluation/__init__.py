"""Has it forgotten, and does it still recommend? Measures of models' answers, and a verdict."""
