"""`engage-relay order` and `engage-relay reconcile`: what became of the orders."""
