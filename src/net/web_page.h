/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_WEB_PAGE_H
#define CBI_WEB_PAGE_H

#include "net/cluster.h"
#include "net/html.h"

/* The pages themselves. `figures` are those of the server that is asked. */

void cbi_web_storage(cbi_html *h, const cbi_cluster *cluster);
void cbi_web_executors(cbi_html *h, const cbi_cluster *cluster, const cb_figures *figures);

#endif
