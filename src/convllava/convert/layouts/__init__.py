"""Checkpoint layouts: one module for each, which reads it and, where supported, writes it.

==========================  ==========================================================================================
module                      layout
==========================  ==========================================================================================
``convllava``               This package's layout: ``config.json``, ``processor_config.json``, safetensors.
``official``                ConvLLaVA as its authors save it, split or consolidated, and LLaVA-1.5 in the same code.
``official_writing``        The split layout of the authors, written.
``transformers_llava``      LLaVA-1.5 as transformers saves it (``LlavaForConditionalGeneration``).
``registry``                Detects the layout of a directory and calls its reader.
==========================  ==========================================================================================
"""
