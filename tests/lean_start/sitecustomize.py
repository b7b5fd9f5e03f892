"""What Python runs first in all processes that tests start: it looks for no garbage, neither in imports nor at its end.

Imports create a million objects that stay, and such a process lives for seconds. Frozen objects are not searched.
"""

import atexit
import gc

gc.disable()
atexit.register(gc.freeze)
