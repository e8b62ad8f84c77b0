"""A cluster of real processes on this machine, tormented and checked.

`cluster` starts, kills, pauses and stops the processes; `feeder` appends through them and notes
what became of each record; `audit` compares that with what lies in the directories. Tests of real
clusters use these three; `story` puts them together for `replog demo`, and `stage` shows it.
"""

from __future__ import annotations
