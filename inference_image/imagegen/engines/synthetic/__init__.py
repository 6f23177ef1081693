"""An engine without a model: draws the quoted text, and misbehaves at declared rates."""
