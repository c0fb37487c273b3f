/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BOXER_INHERIT_H
#define BOXER_INHERIT_H

/*
 * An accepted socket has options from its listener. The socket that the
 * supervisor hands over was accepted elsewhere, so it gets them from the signal
 * connection, which was accepted here.
 */
void inherit_options(int from, int to);

#endif
