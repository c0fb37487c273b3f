// SPDX-License-Identifier: Apache-2.0

// Package cloud finds, makes, awaits and removes what a network has on AWS.
//
// One file per kind of object. A finder says what there is, or ErrNotFound; what
// is already gone has been deleted; a waiter ends with the reason that AWS gives;
// an error says what failed, on what, why, and what to do (Error).
package cloud
