"""Setting of all Python processes that tests start: they look for no garbage, neither in imports nor at their end.

Imports create a million objects that stay, and such a process lives for seconds. Frozen objects are not searched.
"""

import atexit
import gc

gc.disable()
atexit.register(gc.freeze)
