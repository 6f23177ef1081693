"""How well a small model does what it was trained for: spelling, counting, colours, speed.

Pictures of prompts that training never saw are read by OCR and looked at pixel by pixel; nothing
here knows how a picture was made. Drawn controls go through the same eyes, so that their own errors
show.
"""
