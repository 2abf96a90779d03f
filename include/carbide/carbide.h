/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_CARBIDE_H
#define CARBIDE_CARBIDE_H

/* The whole library. Each header can also be included alone. */
#include "carbide/allocator.h"
#include "carbide/block.h"
#include "carbide/channel.h"
#include "carbide/cipher.h"
#include "carbide/client.h"
#include "carbide/dedupe.h"
#include "carbide/directory.h"
#include "carbide/group.h"
#include "carbide/job.h"
#include "carbide/join.h"
#include "carbide/ledger.h"
#include "carbide/level.h"
#include "carbide/manager.h"
#include "carbide/monitor.h"
#include "carbide/partition.h"
#include "carbide/pool.h"
#include "carbide/segment.h"
#include "carbide/server.h"
#include "carbide/settings.h"
#include "carbide/shuffle.h"
#include "carbide/simulate.h"
#include "carbide/sort.h"
#include "carbide/status.h"
#include "carbide/store.h"
#include "carbide/task.h"
#include "carbide/view.h"

#endif
