"""POD obliteration from pelvic MRI: masked pre-training, ultrasound teacher, unpaired distillation."""
