/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_RECLAIM_H
#define CBI_RECLAIM_H

#include "spill/file.h"

/**
 * Makes a 0700 folder of our own inside the folder `fd` (`path` for messages) with a locked owner
 * file in it, after removing those whose owners are dead. Refuses a folder where somebody else
 * could replace it: others may write there and it is not sticky.
 */
cb_status cbi_private_folder_open(cbi_private_folder *folder, int fd, const char *path,
                                  cb_error *err);
/** The same where results will live: who may write there may replace them anyway. */
cb_status cbi_private_folder_make(cbi_private_folder *folder, int fd, const char *path,
                                  cb_error *err);
/** Removes it with everything of ours in it. One that is not open (fd < 0) is fine. */
void cbi_private_folder_close(cbi_private_folder *folder, int parent);
/** Removes what dead owners left in the folder `fd`; answers how many folders went. Never an error:
 * what cannot be removed stays. */
uint32_t cbi_reclaim(int fd);

#endif
