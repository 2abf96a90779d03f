/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_FAULT_H
#define CBI_FAULT_H

#include "base/sys.h"

/**
 * Asked by each call of src/base before it goes to the system: 0 = go on, otherwise the errno to
 * fail with. Costs nothing in builds without CARBIDE_FAULTS.
 */
#ifdef CARBIDE_FAULTS
int cbi_fault_next(unsigned kind);
#define CBI_FAULT(kind) cbi_fault_next(kind)
#else
#define CBI_FAULT(kind) ((void)(kind), 0)
#endif

#endif
