"""Tests of VL1: recorded vectors, single nodes in virtual time, and whole simulated networks."""
