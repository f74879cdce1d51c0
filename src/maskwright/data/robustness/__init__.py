"""Pictures damaged in 15 ways and 5 strengths: how much of its performance a model keeps."""
