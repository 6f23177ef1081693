"""The ``ModelRollout`` API: types, conditions and reasons, revision names, CRD generator."""
